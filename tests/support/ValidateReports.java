import com.pixelmed.validate.DicomSRValidator;

/** What Pixelmed's DicomSRValidator says of many files; the program of that name takes one. */
public class ValidateReports {
    public static void main(String[] files) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        for (String file : files) {
            System.out.println("File: " + file);
            // As its own main does without options: the meanings of codes are compared too.
            System.out.println(validator.validate(file, false, true, false, false, false));
        }
    }
}
